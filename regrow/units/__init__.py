"""What is connected: units, where they live in parameters, and how to read and replace them."""

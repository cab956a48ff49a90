"""What must hold of every method, wherever people train. A method that is registered is tested here unasked."""

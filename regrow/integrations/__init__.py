"""WHERE ELSE: regrow in the training loops of other libraries. Each file needs the library that it is named after."""

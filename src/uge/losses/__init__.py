"""Pure loss functions, one equation a file."""

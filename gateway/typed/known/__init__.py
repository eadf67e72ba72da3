"""What is known of the models that are served: their types, and what their releases say of themselves."""

"""A Report made visible: JSON, pictures, and the terminal's table."""

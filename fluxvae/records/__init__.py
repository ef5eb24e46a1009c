"""What was found, as data: read and written strictly."""

"""A folder for the Hugging Face Hub, and its upload."""

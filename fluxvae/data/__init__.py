"""What goes in: photos, images, latents and their spaces."""

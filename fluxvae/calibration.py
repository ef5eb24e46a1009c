"""Latents to calibrate compression with: photos, or a folder of the user's."""

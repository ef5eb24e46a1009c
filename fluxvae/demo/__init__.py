"""Demo weights that we trained ourselves: real images in and out, but NOT FLUX's latent space.

``flux1_demo_{encoder,decoder}.safetensors`` and ``flux2_demo_...``: fp16, taesd's key names,
made by ``scripts/train_demo_weights.py`` on scikit-image's photos. Read by ``--weights demo``.
"""

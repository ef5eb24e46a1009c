"""The reference executor: reads saved Core ML models and runs them on torch, on any OS.

The independent judge of everything else: it imports nothing of fluxvae but ``errors``.
"""

"""A stand-in for the ComfyUI Unified API that behaves like the real one, vices included."""

"""The story a newcomer watches: jobs wake the GPU, run, and the GPU goes back to sleep."""

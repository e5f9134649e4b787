"""What goes between processes: objects as bytes, bytes as frames, buffers in shared memory."""

"""Video and pictures as arrays, and limits for untrusted files."""

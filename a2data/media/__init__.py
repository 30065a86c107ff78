"""Video and pictures as arrays, and the limits on what a file from outside may ask for."""

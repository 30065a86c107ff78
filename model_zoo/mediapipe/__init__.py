"""MediaPipe's networks, decoded as its published graphs do (github.com/google-ai-edge/mediapipe, mediapipe/modules)."""

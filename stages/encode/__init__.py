"""How a training sample is varied before it is encoded."""

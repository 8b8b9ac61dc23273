"""What PyTorch is told of our operators, once for all of them: registration, recording for autograd, and when the
dispatcher may be passed by. Most of this project's uses of PyTorch's private parts stand here, each with its reason."""

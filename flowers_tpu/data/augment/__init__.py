"""What is done to training photos: stateless, a function of the photo and its draws."""

"""The app in the browser: search, questions, spikes and energy of images, on one model."""

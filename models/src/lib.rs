//! Language models and text encoders in burn, read from and written to Hugging Face folders.

//! What a model leaves with its caller between two calls.

use std::any::Any;

use crate::ModelError;

/// A value that only the model which made it looks into: tensors, or buffers of a device.
#[derive(Debug)]
pub struct Kept(Box<dyn Any + Send>);

impl Kept {
    /// Wraps a value.
    pub fn new<T: Any + Send>(value: T) -> Self {
        Self(Box::new(value))
    }

    /// The value, for the model that knows its type.
    ///
    /// # Errors
    /// When another kind of model made it.
    pub fn get<T: Any>(&self) -> Result<&T, ModelError> {
        self.0.downcast_ref().ok_or_else(foreign)
    }

    /// The value itself, like [`Kept::get`].
    ///
    /// # Errors
    /// When another kind of model made it.
    pub fn take<T: Any>(self) -> Result<T, ModelError> {
        Ok(*self.0.downcast().map_err(|_| foreign())?)
    }
}

fn foreign() -> ModelError {
    ModelError::Input("expected what this model gave, found what a model of another kind gave".to_owned())
}

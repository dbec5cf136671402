//! One process alone.

use super::{Communicator, DistError, Operation, Spent};

/// The only rank of a world of one: everything is there already, so nothing costs anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

fn check_root(operation: Operation, root: usize) -> Result<(), DistError> {
    if root == 0 {
        return Ok(());
    }
    Err(DistError::NoSuchRank {
        operation,
        root,
        world: 1,
    })
}

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn broadcast(&mut self, _: &mut [f32], root: usize) -> Result<(), DistError> {
        check_root(Operation::Broadcast, root)
    }

    fn broadcast_bytes(&mut self, _: &mut Vec<u8>, root: usize) -> Result<(), DistError> {
        check_root(Operation::BroadcastBytes, root)
    }

    fn all_reduce_sum(&mut self, _: &mut [f32]) -> Result<(), DistError> {
        Ok(())
    }

    fn all_reduce_sum_f64(&mut self, _: &mut [f64]) -> Result<(), DistError> {
        Ok(())
    }

    fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        Ok(vec![own.to_vec()])
    }

    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        self.all_gather(own)
    }

    fn reduce_scatter_f64(&mut self, values: &[f64]) -> Result<Vec<f64>, DistError> {
        Ok(values.to_vec())
    }

    fn all_gather_parts(&mut self, _: &mut [f32]) -> Result<(), DistError> {
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), DistError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DistError> {
        Ok(())
    }

    fn abort(&mut self, _: &str) {}

    fn spent(&self) -> Spent {
        Spent::default()
    }

    fn description(&self) -> String {
        "one process".to_owned()
    }
}

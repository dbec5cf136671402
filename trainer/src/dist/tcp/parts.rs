//! Collectives in which a rank's part is not the whole: sums in parts, parts made whole, bytes for rank 0 alone.

use super::{Broken, Tcp, at, wire};
use crate::dist::{DistError, Operation, part_length};

impl Tcp {
    /// Part after part, each in pieces: every rank sends its terms, and the part's owner alone hears the sum.
    pub(super) fn reduce_parts(&mut self, values: &[f64]) -> Result<Vec<f64>, DistError> {
        let operation = Operation::ReduceScatter;
        let length = part_length(operation, values.len(), self.world)?;
        self.collective(operation, 0, |this, call| {
            let bytes = size_of_val(values) as u64;
            this.agree(call, bytes, true, |_| bytes)?;
            let mut own = Vec::with_capacity(length);
            for (owner, part) in values.chunks(length.max(1)).enumerate() {
                for piece in part.chunks(wire::PIECE) {
                    match this.is_hub() {
                        true => own.extend(this.sum_piece(owner, piece)?),
                        false => own.extend(this.send_piece(owner, piece)?),
                    }
                }
            }
            Ok(own)
        })
    }

    /// The hub's half: the sum of a piece, where the hub is its owner.
    fn sum_piece(&self, owner: usize, piece: &[f64]) -> Result<Vec<f64>, Broken> {
        let mut sums = piece.to_vec();
        let mut theirs = vec![0.0; piece.len()];
        for (index, stream) in self.data.iter().enumerate() {
            wire::read(stream, &mut theirs).map_err(at(index))?;
            sums.iter_mut().zip(&theirs).for_each(|(sum, value)| *sum += value);
        }
        if owner == 0 {
            return Ok(sums);
        }
        // The owner has sent its own terms and waits for this: it does not write.
        wire::write(&self.data[owner - 1], &sums).map_err(at(owner - 1))?;
        Ok(Vec::new())
    }

    /// Another rank's half: the sum of a piece, where this rank is its owner.
    fn send_piece(&self, owner: usize, piece: &[f64]) -> Result<Vec<f64>, Broken> {
        wire::write(&self.data[0], piece).map_err(at(0))?;
        if owner != self.rank {
            return Ok(Vec::new());
        }
        let mut sums = vec![0.0; piece.len()];
        wire::read(&self.data[0], &mut sums).map_err(at(0))?;
        Ok(sums)
    }

    /// The hub takes every rank's part, then gives each the others.
    pub(super) fn spread_parts(&mut self, values: &mut [f32]) -> Result<(), DistError> {
        let operation = Operation::AllGatherParts;
        let length = part_length(operation, values.len(), self.world)?;
        self.collective(operation, 0, |this, call| {
            let bytes = size_of_val(values) as u64;
            this.agree(call, bytes, true, |_| bytes)?;
            if length == 0 {
                return Ok(());
            }
            if !this.is_hub() {
                for (owner, part) in values.chunks(length).enumerate() {
                    if owner == this.rank {
                        wire::write(&this.data[0], part).map_err(at(0))?;
                    }
                }
                for (owner, part) in values.chunks_mut(length).enumerate() {
                    if owner != this.rank {
                        wire::read(&this.data[0], part).map_err(at(0))?;
                    }
                }
                return Ok(());
            }
            for (index, part) in values.chunks_mut(length).skip(1).enumerate() {
                wire::read(&this.data[index], part).map_err(at(index))?;
            }
            for (index, stream) in this.data.iter().enumerate() {
                for (owner, part) in values.chunks(length).enumerate() {
                    if owner != index + 1 {
                        wire::write(stream, part).map_err(at(index))?;
                    }
                }
            }
            Ok(())
        })
    }

    pub(super) fn gather_bytes(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        self.collective(Operation::Gather, 0, |this, call| {
            let total = |lengths: &[u64]| lengths.iter().fold(0u64, |sum, &length| sum.saturating_add(length));
            let lengths = this.agree(call, own.len() as u64, false, total)?;
            if !this.is_hub() {
                wire::write(&this.data[0], own).map_err(at(0))?;
                return Ok(Vec::new());
            }
            let mut all = vec![own.to_vec()];
            for (index, &length) in lengths[1..].iter().enumerate() {
                let mut bytes = vec![0; length as usize];
                wire::read(&this.data[index], &mut bytes).map_err(at(index))?;
                all.push(bytes);
            }
            Ok(all)
        })
    }
}

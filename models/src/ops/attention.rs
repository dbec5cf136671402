//! Attention over packed rows: tokens of many sequences stand end to end, `[tokens, heads, head_dim]`, without padding.
//! Rows of similar length are attended together; only there are they padded, and the padding never leaves this file.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};

/// What the tokens of a row may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowShape {
    /// Every token sees the whole row.
    Full(usize),
    /// A prompt of `prompt` tokens that `branches` continue: a token sees what stands before it in the prompt and in its
    /// own branch. No branches: plainly causal.
    Tree {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of each branch, in order.
        branches: Vec<usize>,
    },
}

impl RowShape {
    /// Tokens of the row.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Full(len) => *len,
            Self::Tree { prompt, branches } => prompt + branches.iter().sum::<usize>(),
        }
    }

    /// The keys that query `index` sees: up to two ranges.
    fn visible(&self, index: usize) -> [Range<usize>; 2] {
        match self {
            Self::Full(len) => [0..*len, 0..0],
            Self::Tree { prompt, .. } if index < *prompt => [0..index + 1, 0..0],
            Self::Tree { prompt, branches } => {
                let mut start = *prompt;
                for branch in branches {
                    if index < start + branch {
                        break;
                    }
                    start += branch;
                }
                [0..*prompt, start..index + 1]
            }
        }
    }
}

/// How the rows of one batch are attended.
#[derive(Debug, Clone)]
pub(crate) struct AttentionLayout {
    groups: Vec<Group>,
}

/// Consecutive rows that are attended in one product.
#[derive(Debug, Clone)]
struct Group {
    tokens: Range<usize>,
    rows: usize,
    longest: usize,
    /// Where each padded place reads from, and where each token stands among the padded places; `None` without padding.
    padding: Option<(Tensor<1, Int>, Tensor<1, Int>)>,
    /// Added to the scores: 0 or −∞, `[rows or 1, 1, longest, longest]`; `None` where everything is seen.
    mask: Option<Tensor<4>>,
}

impl AttentionLayout {
    /// The layout of `rows` that stand end to end, to attend what is of type `dtype`. Neighbours are padded to each other's length while that wastes less
    /// than a fifth; order rows by length to profit.
    pub(crate) fn new(rows: &[RowShape], place: (&Device, DType)) -> Self {
        const MOST_ROWS: usize = 32;
        let mut groups = Vec::new();
        let (mut first, mut start) = (0, 0);
        while first < rows.len() {
            let (mut end, mut tokens, mut longest) = (first, 0, 0);
            while end < rows.len() && end - first < MOST_ROWS {
                let (sum, most) = (tokens + rows[end].len(), longest.max(rows[end].len()));
                if 5 * sum < 4 * most * (end - first + 1) {
                    break;
                }
                (tokens, longest, end) = (sum, most, end + 1);
            }
            groups.push(Group::new(&rows[first..end], start, longest, place));
            (first, start) = (end, start + tokens);
        }
        Self { groups }
    }

    /// Softmax attention: queries `[tokens, heads, dim]` over keys and values `[tokens, kv_heads, dim]`, in which
    /// `heads / kv_heads` query heads share a key head. Returns `[tokens, heads · dim]`.
    pub(crate) fn attend(&self, q: &Tensor<3>, k: &Tensor<3>, v: &Tensor<3>, scale: f64) -> Tensor<2> {
        let mut outputs: Vec<_> = self
            .groups
            .iter()
            .map(|group| {
                let cut = |x: &Tensor<3>| group.pad(x.clone());
                group.attend(cut(q), cut(k), cut(v), scale)
            })
            .collect();
        if outputs.len() == 1 {
            outputs.remove(0)
        } else {
            Tensor::cat(outputs, 0)
        }
    }
}

impl Group {
    fn new(rows: &[RowShape], start: usize, longest: usize, (device, dtype): (&Device, DType)) -> Self {
        let tokens = rows.iter().map(RowShape::len).sum::<usize>();
        let even = tokens == longest * rows.len();
        let indices = |values: Vec<i64>| {
            let len = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [len]), device)
        };
        let padding = (!even).then(|| {
            let (mut sources, mut places, mut before) = (Vec::new(), Vec::new(), 0);
            for (row, shape) in rows.iter().enumerate() {
                let len = shape.len();
                sources.extend((0..longest).map(|i| (before + i.min(len - 1)) as i64));
                places.extend((0..len).map(|i| (row * longest + i) as i64));
                before += len;
            }
            (indices(sources), indices(places))
        });
        let full = rows.iter().all(|row| matches!(row, RowShape::Full(_)));
        let mask = (!(full && even)).then(|| mask(rows, longest, (device, dtype)));
        Self {
            tokens: start..start + tokens,
            rows: rows.len(),
            longest,
            padding,
            mask,
        }
    }

    /// `[tokens, heads, dim]` of the batch to `[rows, longest, heads, dim]` of the group.
    fn pad(&self, x: Tensor<3>) -> Tensor<4> {
        let [all, heads, dim] = x.dims();
        let own = if self.tokens.len() == all {
            x
        } else {
            x.narrow(0, self.tokens.start, self.tokens.len())
        };
        let padded = match &self.padding {
            Some((sources, _)) => own.select(0, sources.clone()),
            None => own,
        };
        padded.reshape([self.rows, self.longest, heads, dim])
    }

    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, scale: f64) -> Tensor<2> {
        let [rows, longest, heads, dim] = q.dims();
        let kv_heads = k.dims()[2];
        let shared = heads / kv_heads;
        // Query heads of one key head follow each other, so they become further rows of its product.
        let q = q.swap_dims(1, 2).reshape([rows, kv_heads, shared * longest, dim]);
        let scores = q.mul_scalar(scale).matmul(k.permute([0, 2, 3, 1]));
        let scores = match &self.mask {
            Some(mask) => {
                let split = scores.reshape([rows, heads, longest, longest]) + mask.clone();
                split.reshape([rows, kv_heads, shared * longest, longest])
            }
            None => scores,
        };
        let mixed = activation::softmax(scores, 3).matmul(v.swap_dims(1, 2));
        let mixed = mixed.reshape([rows, heads, longest, dim]).swap_dims(1, 2);
        let mixed = mixed.reshape([rows * longest, heads * dim]);
        match &self.padding {
            Some((_, places)) => mixed.select(0, places.clone()),
            None => mixed,
        }
    }
}

/// `[rows, 1, longest, longest]`: 0 where a query sees a key, −∞ elsewhere. A padded query sees what the last token sees.
fn mask(rows: &[RowShape], longest: usize, place: (&Device, DType)) -> Tensor<4> {
    let mut values = vec![f32::NEG_INFINITY; rows.len() * longest * longest];
    for (row, shape) in rows.iter().enumerate() {
        for query in 0..longest {
            let start = (row * longest + query) * longest;
            for keys in shape.visible(query.min(shape.len() - 1)) {
                values[start + keys.start..start + keys.end].fill(0.0);
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), 1, longest, longest]), place)
}

//! Normalisation over the last dimension.

use burn::tensor::Tensor;

/// RMSNorm of `x` (`[tokens, hidden]`) with weight `[1, hidden]` (Zhang & Sennrich, 2019).
pub(crate) fn rms_norm(x: Tensor<2>, weight: Tensor<2>, eps: f64, adds_one: bool) -> Tensor<2> {
    let variance = x.clone().square().mean_dim(1);
    let normal = x * variance.add_scalar(eps).sqrt().recip();
    normal * if adds_one { weight.add_scalar(1.0) } else { weight }
}

/// LayerNorm of `x` (`[tokens, hidden]`) with weight and bias `[1, hidden]` (Ba et al., 2016).
pub(crate) fn layer_norm(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<2>, eps: f64) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().square().mean_dim(1);
    centred * variance.add_scalar(eps).sqrt().recip() * weight + bias
}

"""What happens to an update between the client and the sum: one file, one class for each stage."""

from fedpact.core.registry import Registry

TRANSFORMS = Registry(
    "channel stage",
    {
        "AdaptiveClip": "fedpact.channel.adaptive_clip:AdaptiveClip",
        "Cast": "fedpact.channel.cast:Cast",
        "Clip": "fedpact.channel.clip:Clip",
        "CorrelatedNoise": "fedpact.channel.correlated_noise:CorrelatedNoise",
        "CountSketch": "fedpact.channel.count_sketch:CountSketch",
        "Drive": "fedpact.channel.drive:Drive",
        "Eden": "fedpact.channel.eden:Eden",
        "EFSignSGD": "fedpact.channel.ef_sign_sgd:EFSignSGD",
        "GaussianNoise": "fedpact.channel.noise:GaussianNoise",
        "Hadamard": "fedpact.channel.hadamard:Hadamard",
        "HomomorphicSum": "fedpact.channel.homomorphic_sum:HomomorphicSum",
        "LaplaceNoise": "fedpact.channel.noise:LaplaceNoise",
        "LayerClip": "fedpact.channel.layer_clip:LayerClip",
        "Lossless": "fedpact.channel.lossless:Lossless",
        "Partial": "fedpact.channel.partial:Partial",
        "PowerSGD": "fedpact.channel.power_sgd:PowerSGD",
        "Projection": "fedpact.channel.projection:Projection",
        "Prune": "fedpact.channel.prune:Prune",
        "QSGD": "fedpact.channel.qsgd:QSGD",
        "Quantize": "fedpact.channel.quantize:Quantize",
        "RandomK": "fedpact.channel.random_k:RandomK",
        "SecureSum": "fedpact.channel.secure_sum:SecureSum",
        "SendQuantized": "fedpact.channel.send_quantized:SendQuantized",
        "SignSGD": "fedpact.channel.sign_sgd:SignSGD",
        "SkellamNoise": "fedpact.channel.noise:SkellamNoise",
        "SplitTrust": "fedpact.channel.split_trust:SplitTrust",
        "TernGrad": "fedpact.channel.tern_grad:TernGrad",
        "TopK": "fedpact.channel.top_k:TopK",
        "ZeroOutliers": "fedpact.channel.zero_outliers:ZeroOutliers",
    },
)

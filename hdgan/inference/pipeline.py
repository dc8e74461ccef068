"""A trained model that generates images from maps: files, Pillow images, arrays or tensors."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias, get_args

import torch
from torch import Tensor, nn

from hdgan.checkpoints import find_checkpoint
from hdgan.config.bounds import Depth, Precision
from hdgan.config.options import option
from hdgan.data.spec import DatasetSpec
from hdgan.devices import choose_device, network_format
from hdgan.errors import ConfigError
from hdgan.families import ImageModel
from hdgan.families.saving import CLASS_MEAN, load_model
from hdgan.families.stored_inputs import stored_inputs
from hdgan.inference.engine import AnyRequest, Engine, Generated
from hdgan.inference.maps import ImageSource, Maps, read_maps
from hdgan.inference.pictures import save_picture
from hdgan.inference.replay import Replay
from hdgan.inference.styles import bank_of, encoded, encoder_of, features_of, styled_rows
from hdgan.models.blocks import Casts, reusing
from hdgan.models.draws import ImageDraws, draws
from hdgan.models.spectral_norm import without_spectral_norm
from hdgan.ops import instance_reduce
from hdgan.seeding import seeded
from hdgan.styles.bank import StyleBank
from hdgan.styles.sample import Styles, styles_of
from hdgan.styles.table import fingerprint

Given: TypeAlias = tuple[Tensor | None, ...]
"""What an image is made of: label, ids and image of the maps, and features [B, feature_channels, H, W]."""


class Pipeline:
    """Generates images with a trained model.

    Args:
        model: the networks. Its discriminator is not used.
        class_features: [n_classes, feature_channels], the style of each class if neither a photo nor styles give one.
        device: on which the model runs.
        precision: "float32", or "bfloat16" or "float16" for autocast. float16 is closer to float32, and on most CPUs
            several times slower.
        file: of the model. Its clusters of styles are next to it.
        cuda_graphs: on a GPU, replay a CUDA graph when inputs of one shape follow each other. It takes the memory of
            all layers for as long as the pipeline lives. A model with hooks runs without it.
        input_depth: type of the numbers of the images that an A->B model was trained on. After "uint8" or "uint16"
            inputs of floats have to be in [-1, 1]; after "float32", and where None says that it is not known, they can
            have any range.

    Raises:
        ConfigError: the precision is another one.
    """

    def __init__(
        self,
        model: ImageModel,
        class_features: Tensor | None = None,
        device: torch.device | None = None,
        precision: Precision = "float32",
        file: Path | None = None,
        cuda_graphs: bool = True,
        input_depth: Depth | None = None,
    ) -> None:
        if precision not in get_args(Precision):
            raise ConfigError(f"precision is {precision!r}: give float32, bfloat16 or float16")
        self.device = device or torch.device("cpu")
        model.discriminator = None
        model.to(self.device, memory_format=network_format(self.device))  # type: ignore[call-overload]
        self.model = model.eval().requires_grad_(False)
        self.config = model.config
        self.class_features = None if class_features is None else class_features.to(self.device)
        self.precision = precision
        self.file = file
        self.input_depth = input_depth
        self._casts = Casts()
        self._replay = Replay(self.model, self.device) if cuda_graphs and self.device.type == "cuda" else None

    @torch.no_grad()
    def __call__(
        self,
        source: ImageSource | Maps,
        instance: ImageSource | None = None,
        *,
        photo: ImageSource | None = None,
        styles: Styles | Sequence[Styles] | None = None,
        seed: int | None = None,
        variant: int = 0,
    ) -> Tensor:
        """Generate an image of the size of its input.

        Args:
            source: label map, or for a model trained on A->B pairs the input image. A path, a Pillow image, an array
                or a tensor: label maps as integers [H, W] or [B, H, W], images as [H, W, C] arrays (8 or 16 bits, or
                float in [-1, 1]) or float tensors [C, H, W] or [B, C, H, W] in [-1, 1]. A model that was trained on
                floats takes floats of any range. Or the result of `read`, which is not checked again: to look at the
                values of an image on a GPU, a call waits for it.
            instance: instance map of the same size; needed if the model was trained with instances.
            photo: gives each instance its style. Without it each class has its mean style.
            styles: gives each instance its style. An instance without one has the mean style of its class. For a
                batch, one object for all maps, or one for each.
            seed: 0 or more. Together with the variant it determines the noise of a model that draws any, such as
                pix2pix with its dropout. None continues torch's random generator.
            variant: number of the image, from 0, if the model makes several of one input (`ModelConfig.variants`): one
                of its images, or other noise of the same seed.

        Returns:
            [image_channels, H, W] float32 in [0, 1] on the pipeline's device; [B, image_channels, H, W] for a batch.

        Raises:
            DataError: a file or value cannot be used, for example labels out of range or sizes that differ.
            ConfigError: the model needs an instance map or photo that is not given, or cannot use a given argument.
            CheckpointError: the styles are of another encoder.
        """
        self.check(seed, variant)
        maps = self.read(source, instance)
        with self.autocast(), nullcontext() if seed is None else seeded(self.device, seed, variant):
            image = self.image_of(self.given(maps, photo, styles), variant)
        return image if maps.batched else image[0]

    def stream(
        self, requests: Iterable[AnyRequest], *, batch_size: int = 1
    ) -> Generator[Generated[AnyRequest], None, None]:
        """Generate many images, faster than by one call after the other.

        Maps are read ahead in threads. A CPU computes several images at once, on as many cores as PyTorch has threads;
        on a GPU the copies run beside the networks. Only so many images are in work that memory is bounded.

        An image has the bits of a call with its request, and its noise follows from seed and variant in whatever batch
        it is. Images of a batch of several differ from those of single calls by rounding. Where no seed is given, the
        order in which images draw from torch's random generator is not defined on a CPU.

        Args:
            requests: the images. They are taken one after another while images are read, so there can be any number.
            batch_size: most images that the networks compute at once: of requests that follow each other and whose
                maps have one size. More than one can be faster for small maps.

        Yields:
            The images, in the order of the requests. Closing the generator early waits for those that are in work.

        Raises:
            ConfigError: the batch size is not 1 or more, or the images of this model depend on what is in their batch.
            DataError, ConfigError, CheckpointError: as in a call, after the images of all requests before. Maps that
                `read` has returned can be requested too, so that a file that cannot be used ends no stream.
        """
        return Engine(self, batch_size).run(requests)

    def save_image(self, image: Tensor, path: str | Path) -> None:
        """Write an image atomically, with the channels and bits of the photos that the model was trained on.

        Args:
            image: [image_channels, H, W] in [0, 1], as a call returns it.
            path: PNG, or TIFF with one page for each channel where the photos are no PNG. Its folder is made if it does
                not exist.

        Raises:
            ConfigError: the ending of the path is another one.
            DataError: the image is a batch.
            HdganError: the file cannot be written.
        """
        save_picture(image, path, self.config.image_depth)

    @torch.no_grad()
    def read(self, source: ImageSource | Maps, instance: ImageSource | None = None) -> Maps:
        """Read and check the input once for several calls, which take the result as their `source`.

        Args:
            source, instance: as in a call.

        Raises:
            DataError, ConfigError: as in a call.
        """
        return read_maps(source, instance, self.config, self.device, self.input_depth)

    @cached_property
    def classes(self) -> DatasetSpec | None:
        """Names and colours of the classes of the label maps; None where they are not known, and for A->B models.

        They are those of classes.csv in the folder of the dataset when the model was trained, which its file keeps.

        Raises:
            CheckpointError: the file is damaged.
            DataError: the file has no names, and classes.csv of the dataset cannot be used.
        """
        from hdgan.training.known_classes import classes_of_model  # which generating does not need

        return None if self.file is None else classes_of_model(self.file, self.config)

    @cached_property
    def bank(self) -> StyleBank:
        """The clusters of the model's classes, which `hdgan styles cluster` writes next to its file.

        Raises:
            CheckpointError: there are none, or they are of another encoder.
            ConfigError: the model has no features.
        """
        return bank_of(self)

    @cached_property
    def encoder_id(self) -> str:
        """`fingerprint` of E, which matches styles with their model; empty without E."""
        return "" if self.model.encoder is None else fingerprint(self.model.encoder)

    @torch.no_grad()
    def instances(self, source: ImageSource | Maps, instance: ImageSource | None = None) -> dict[int, int]:
        """The class of every instance of one map, by instance id (by label without an instance map).

        The class is the label of most of the instance's pixels. A model without label maps takes it from the id.

        Args:
            source, instance: as in a call.

        Raises:
            DataError, ConfigError: as in a call, and for a batch.
        """
        return self.read(source, instance).instances()

    @torch.no_grad()
    def encode(self, photo: ImageSource, source: ImageSource | Maps, instance: ImageSource | None = None) -> Styles:
        """The style of every instance of one photo, which can be changed, mixed or saved.

        Args:
            photo: of the size of the maps.
            source, instance: as in a call.

        Raises:
            DataError, ConfigError: as in a call, and for a batch.
        """
        maps = self.read(source, instance)
        if maps.encoded is not None:
            return maps.encoded
        classes = maps.instances()
        with self.autocast():
            features = instance_reduce(encoded(self, maps, photo).float(), maps.index)
        return styles_of(classes, features.cpu().numpy(), self.encoder_id)

    @torch.no_grad()
    def complete(self, styles: Styles, source: ImageSource | Maps, instance: ImageSource | None = None) -> Styles:
        """Styles of all instances of one map. Those that are missing get the mean style of their class.

        A call with the result generates the same image. A mixture of two such results covers every instance.

        Args:
            styles: of some of the instances.
            source, instance: as in a call.

        Raises:
            DataError, ConfigError, CheckpointError: as in a call, and for a batch.
        """
        maps = self.read(source, instance)
        classes = maps.instances()
        rows = styled_rows(self, maps, [styles]).cpu().numpy()
        whole = styles_of(classes, rows, self.encoder_id).instances
        return Styles({id: styles.instances.get(id, whole[id]) for id in classes}, self.encoder_id)

    def require_variant(self, variant: int) -> None:
        """Refuse a number of an image, counted from 0, of which the model does not generate so many for an input.

        Raises:
            ConfigError: there is no such image.
        """
        most = self.config.variants
        if variant < 0 or (most is not None and variant >= most):
            raise ConfigError(
                f"variant is {variant}: the model generates {most or 'any number of'} images of an input, counted "
                "from 0"
            )

    def require_batch(self, size: int) -> None:
        """Refuse a number of images that `stream` cannot generate at once.

        Raises:
            ConfigError: the size is less than 1, or more than 1 for a model whose images depend on their batch.
        """
        if size < 1:
            raise ConfigError(f"{option('batch_size')} is {size}: give 1 or more")
        if size > 1 and not self.config.batchable:
            raise ConfigError(
                f"{option('batch_size')} is {size}, but images of this model depend on what else is in their batch, by "
                "its batch norm or dropout: leave it out"
            )

    def check(self, seed: int | None, variant: int) -> None:
        """Refuse a seed or a variant that a call cannot have.

        Raises:
            ConfigError: the seed is negative, or the model does not generate so many images of an input.
        """
        self.require_variant(variant)
        if seed is not None and seed < 0:
            raise ConfigError(f"seed is {seed}: give 0 or more")

    def given(self, maps: Maps, photo: ImageSource | None, styles: Styles | Sequence[Styles] | None) -> Given:
        """What an image is made of: label, ids and image of the maps, and features [B, feature_channels, H, W].

        Args:
            maps: of the image.
            photo: whose styles the image takes, of the same size; None takes them from `styles`, or the means.
            styles: of the instances, one for all images of the batch or one for each; None without.

        Raises:
            ConfigError: photo and styles are both given, or the model cannot take them, or it has no mean styles.
            DataError: the photo cannot be read, or does not have the size of the maps.
        """
        return maps.label, maps.ids, maps.image, features_of(self, maps, photo, styles)

    def image_of(self, given: Given, variant: int) -> Tensor:
        """The whole batch in [0, 1], from a CUDA graph where there is one."""
        # A model of any number of variants draws noise for them, from the generator that is seeded for the call.
        chosen = 0 if self.config.variants is None else variant
        if self._replay is None or isinstance(draws(), ImageDraws):  # whose generators no graph knows
            return self.image(*given, variant=chosen)
        return self._replay(partial(self.image, variant=chosen), given, chosen)

    def image(self, *given: Tensor | None, variant: int) -> Tensor:
        """The whole batch in [0, 1], without waiting for the GPU."""
        label, ids, image, features = given
        condition = self.model.condition(label, ids, image)
        return (self.model.generate(condition, features, variant).float().clamp(-1, 1) + 1) / 2

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Run what is inside with the precision of this pipeline."""
        dtype = torch.float16 if self.precision == "float16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "float32"), reusing(self._casts):
            yield

    def require_encoder(self) -> nn.Module:
        """The encoder.

        Raises:
            ConfigError: there is none.
        """
        return encoder_of(self.model)


def load(
    path: str | Path,
    *,
    checkpoint: str | int = "latest",
    device: str = "auto",
    precision: Precision = "float32",
    ema: bool = True,
    cuda_graphs: bool = True,
) -> Pipeline:
    """Load a trained model.

    Args:
        path: a run folder, a checkpoint folder, a .safetensors file, the name of a model that comes with hdgan, such as
            "demo", or hf:OWNER/NAME[@REVISION] for a model on the Hugging Face Hub, which is downloaded into its cache.
            A file or folder of this name takes precedence.
        checkpoint: of a run: "latest", "best", or a step.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "float32", "bfloat16" or "float16", as of `Pipeline`.
        ema: use the averaged weights if there are any.
        cuda_graphs: as of `Pipeline`.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or the hub cannot be asked for it.
        ConfigError: the device does not exist, or the model is on the hub and huggingface_hub is not installed.
    """
    chosen = choose_device(device)
    file = find_checkpoint(Path(path), checkpoint)
    model, info = load_model(file, ema=ema, device=chosen)
    plain = without_spectral_norm(model)  # plain convolutions are faster, and their weights do not change any more
    depth = stored_inputs(file, info.metadata).depth
    return Pipeline(plain, info.tensors.get(CLASS_MEAN), chosen, precision, file, cuda_graphs, depth)

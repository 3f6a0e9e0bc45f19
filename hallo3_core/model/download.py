"""Download the released files from huggingface.co, when the user asks for them."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

from ..errors import InputError
from ..media.outputs import check_name, claimed, new_folder
from .finding import COMFYUI_DOWNLOADS, SPEECH_FOLDER, TEXT_FOLDER, TRANSFORMER_FILE, VAE_FILE

HALLO3 = "fudan-generative-ai/hallo3"
COGVIDEOX, APACHE = "CogVideoX licence", "Apache 2.0"
STAGING = ".hallo3_download"
BLOCK = 2**24


@dataclass(frozen=True)
class Download:
    """A file of a repository on huggingface.co.

    `published` is its place in a folder of the published layout, and `comfyui` its place in
    ComfyUI's `models`. `gigabytes` is its approximate size, 0 for a small file.
    """

    repository: str
    name: str
    published: str
    comfyui: str
    gigabytes: float
    licence: str

    def place(self, folder: Path) -> Path:
        """The path of the file in `folder`, which may be ComfyUI's `models`."""
        comfyui = folder.name == "models" or (folder / "diffusion_models").is_dir()
        return folder / (self.comfyui if comfyui else self.published)


def _speech_encoder(name: str, gigabytes: float = 0) -> Download:
    return Download(
        "facebook/wav2vec2-base-960h",
        name,
        f"{SPEECH_FOLDER}/{name}",
        f"{COMFYUI_DOWNLOADS[1]}/{name}",
        gigabytes,
        APACHE,
    )


def _text_encoder(name: str, gigabytes: float) -> Download:
    return Download(
        "comfyanonymous/flux_text_encoders",
        name,
        name,
        f"text_encoders/{name}",
        gigabytes,
        APACHE,
    )


def _tokenizer(name: str) -> Download:
    places = (f"{TEXT_FOLDER}/{name}", f"text_encoders/{TEXT_FOLDER}/{name}")
    return Download("google/t5-v1_1-xxl", name, *places, 0, APACHE)


FILES = (
    Download(
        HALLO3,
        TRANSFORMER_FILE,
        TRANSFORMER_FILE,
        f"diffusion_models/{TRANSFORMER_FILE}",
        29.1,
        COGVIDEOX,
    ),
    Download(HALLO3, VAE_FILE, VAE_FILE, COMFYUI_DOWNLOADS[0], 0.86, COGVIDEOX),
    _speech_encoder("model.safetensors", 0.38),
    _speech_encoder("config.json"),
)

TOKENIZER = tuple(map(_tokenizer, ("spiece.model", "tokenizer_config.json")))
TEXT_ENCODERS = {
    "fp16": (_text_encoder("t5xxl_fp16.safetensors", 9.79), *TOKENIZER),
    "fp8_e4m3fn": (_text_encoder("t5xxl_fp8_e4m3fn.safetensors", 4.89), *TOKENIZER),
}
"""The text encoder and its tokenizer, which only prompts need."""


def download(files: tuple[Download, ...], folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """Download files into `folder`, verify each file, and yield its path.

    A file that exists with the published size is kept. An interrupted download continues where it
    stopped. Raises `InputError` if a download fails. Before the first download, raises `InputError`
    if another file has the path of a download and `overwrite` is False.
    """
    staging = folder / STAGING
    with claimed(staging), new_folder(folder):
        missing: dict[Download, str] = {}
        for file in files:
            target = file.place(folder)
            with _told(file):
                published = get_hf_file_metadata(hf_hub_url(file.repository, file.name))
            if not target.is_file() or target.stat().st_size != published.size:
                check_name(target, (), overwrite)
                missing[file] = published.etag or ""
        try:
            for file in files:
                target = file.place(folder)
                if file in missing:
                    with _told(file):
                        _fetch(file, missing[file], staging, target)
                yield target
        finally:
            with suppress(OSError):  # an unfinished download stays in it
                staging.rmdir()


@contextmanager
def _told(file: Download) -> Iterator[None]:
    """Turn every error into an `InputError`. The error types depend on the HTTP library."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{file.name} of {file.repository} cannot be downloaded ({reason}): check the "
            "network and the disk, then start again; what is downloaded already is kept."
        ) from error


def _fetch(file: Download, etag: str, staging: Path, target: Path) -> None:
    """Download a file into its own folder in `staging`, verify it, and move it to `target`."""
    own = staging / f"{file.repository}/{file.name}".replace("/", "--")
    loaded = Path(hf_hub_download(file.repository, file.name, local_dir=own))
    whole = _is_whole(loaded, etag)
    if whole:
        target.parent.mkdir(parents=True, exist_ok=True)
        loaded.replace(target)
    shutil.rmtree(own)
    if not whole:
        raise InputError(f"{file.name} was damaged in the download: start again.")


def _is_whole(file: Path, etag: str) -> bool:
    """Whether a file has the hash that huggingface.co gives: SHA-256 if large, else Git's."""
    large = len(etag) == hashlib.sha256().digest_size * 2
    contents = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            contents.update(block)
    return contents.hexdigest() == etag

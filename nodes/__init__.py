"""The nodes of ComfyUI, one file for each group of them."""

from comfy_api.latest import ComfyExtension, io

from .animate import AnimatePortrait
from .direction import Dialogue, Speaker, SpeechStrength
from .export import ExportVideo
from .faces import FindFace
from .finish import CropFace, PasteFace
from .host.examples import serve_examples
from .host.store import serve_segments
from .identity import EncodeIdentity
from .loaders import LoadDiT, LoadSpeechEncoder, LoadVAE
from .redub import Redub
from .sampling import Guider, Sampler, SampleSegment, Scheduler, SegmentConditioning
from .speech import EncodePrompt, EncodeSpeech, PromptsOverTime
from .video import DecodeVAE, ExtendWithMotionFrames
from .vocals import IsolateVocals


class Hallo3Extension(ComfyExtension):
    async def on_load(self) -> None:
        serve_examples()
        serve_segments()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadDiT,
            LoadVAE,
            LoadSpeechEncoder,
            FindFace,
            EncodeIdentity,
            IsolateVocals,
            EncodeSpeech,
            SpeechStrength,
            Speaker,
            Dialogue,
            EncodePrompt,
            PromptsOverTime,
            SegmentConditioning,
            Sampler,
            Scheduler,
            Guider,
            SampleSegment,
            DecodeVAE,
            ExtendWithMotionFrames,
            AnimatePortrait,
            ExportVideo,
            Redub,
            CropFace,
            PasteFace,
        ]

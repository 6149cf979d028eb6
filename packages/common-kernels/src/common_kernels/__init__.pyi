from ._dispatch import BackendUnavailableError as BackendUnavailableError
from ._explain import explain_backends as explain_backends
from .ops.chess_mask import chess_mask as chess_mask
from .ops.fuse_phase import fuse_phase as fuse_phase
from .ops.knn_attention import Backend as Backend
from .ops.knn_attention import knn_attention as knn_attention
from .ops.knn_dictionary import KNNDictionary as KNNDictionary
from .ops.knn_dictionary import knn_dictionary as knn_dictionary

__version__: str

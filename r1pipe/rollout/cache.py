"""A key-value cache for batched sampling: room is taken ahead, and rows that are done can be dropped."""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer
from transformers.configuration_utils import PretrainedConfig

_ROOM = 64  # positions taken at a time: few enough to waste little, many enough that growing is rare


class RoomyLayer(DynamicLayer):
    """A growing layer that writes into room it already has.

    `DynamicLayer` concatenates, which copies the whole cache for every token; at a few hundred rows of a
    small model that copy costs more than the model. Here `keys` and `values` are views on larger buffers.
    """

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self._rooms: list[torch.Tensor] = []  # of keys and of values, whose head_dim may differ (DeepSeek-V3)
        self._length = 0
        super().lazy_initialization(key_states, value_states)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states of shape [rows, heads, new, head_dim]; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        given = (key_states, value_states)
        end = self._length + key_states.shape[2]
        if self._length == 0 or end > self._rooms[0].shape[2]:
            rooms = [each.new_empty(*each.shape[:2], end + _ROOM, each.shape[3]) for each in given]
            if self._length:
                for room, before in zip(rooms, self._rooms, strict=True):
                    room[:, :, : self._length] = before[:, :, : self._length]
            self._rooms = rooms
        for room, states in zip(self._rooms, given, strict=True):
            room[:, :, self._length : end] = states
        self._view(end)
        return self.keys, self.values

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row named twice is copied."""
        self._rooms = [room.index_select(0, rows) for room in self._rooms]
        self._view(self._length)

    def _view(self, length: int) -> None:
        self._length = length
        self.keys, self.values = (room[:, :, :length] for room in self._rooms)


class RoomyCache(Cache):
    """One `RoomyLayer` for each layer of the model."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(layers=[RoomyLayer() for _ in range(config.num_hidden_layers)])

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows of every layer, in this order."""
        for layer in self.layers:
            layer.keep(rows)

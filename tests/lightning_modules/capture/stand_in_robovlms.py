"""Has the interface of the robovlms package that ours uses; its path is the one written out."""

import torch
from torch import nn

from tests.lightning_modules.capture.tiny_robovlms import WIDTH, action_hs, tiny_tensors


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        for name, tensor in tiny_tensors(seed=9).items():
            if name.startswith("backbone."):
                self._add(name, tensor)
        self.action_token = nn.Parameter(torch.zeros(WIDTH))
        self.act_head = nn.Module()
        self.act_head.rnn = nn.LSTM(WIDTH, 4, batch_first=True)
        self.act_head.forward = lambda hs: self.act_head.rnn(hs.flatten(2))[0]

    def _add(self, name, tensor):
        *folders, last = name.split(".")
        place = self
        for folder in folders:
            if not hasattr(place, folder):
                place.add_module(folder, nn.Module())
            place = getattr(place, folder)
        place.register_parameter(last, nn.Parameter(tensor.clone()))

    def inference(self, vision_x, lang_x, attention_mask=None, vision_gripper=None, **_):
        assert attention_mask.shape == lang_x.shape
        tensors = {n: t for n, t in self.state_dict().items() if not n.startswith("act_head")}
        return {
            "action": self.act_head(action_hs(tensors, lang_x, vision_x, gripper=vision_gripper))
        }


class BaseTrainer(nn.Module):
    @classmethod
    def from_checkpoint(cls, path, source, configs):
        assert source == "torch"
        trainer = cls()
        trainer.model = Policy()
        content = torch.load(path, weights_only=True)["state_dict"]
        trainer.load_state_dict(content, strict=False)
        return trainer

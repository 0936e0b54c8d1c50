import pytest
import torch
from torch import nn

from dgba import Task
from dgba.datasets import CHANNELS, scene_tasks
from dgba.models import Encoder, multi_task
from dgba.models._layers import resized
from dgba.models._sharing import resolve_sharing
from tenfold import SettingError, UnknownNameError

TASKS = scene_tasks()
NAMES = tuple(CHANNELS)
TREE = (
    (NAMES,),
    (NAMES,),
    (NAMES[:3], NAMES[3:]),
    (NAMES[:2], NAMES[2:3], NAMES[3:]),
    (NAMES[:1], NAMES[1:2], NAMES[2:3], NAMES[3:]),
)


def size_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def copied(model, other):
    """Give `other`, which shares less, the weights of `model`."""
    for groups, blocks, others, copies in zip(
        model.sharing, model.blocks, other.sharing, other.blocks, strict=True
    ):
        for group, block in zip(others, copies, strict=True):
            (parent,) = [i for i, whole in enumerate(groups) if set(group) <= set(whole)]
            block.load_state_dict(blocks[parent].state_dict())
    other.heads.load_state_dict(model.heads.state_dict())


@pytest.mark.parametrize(("encoder", "size"), [("small", 64), ("mobilenet_v2", 65), ("resnet34", 65)])
def test_each_task_has_an_output_of_the_size_of_the_images(encoder, size):
    with torch.no_grad():
        outputs = multi_task(TASKS, encoder=encoder)(torch.rand(1, 3, size, size + 2))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        name: (1, channels, size, size + 2) for name, channels in CHANNELS.items()
    }


def test_the_small_network_takes_odd_sizes():
    outputs = multi_task(TASKS)(torch.rand(2, 3, 33, 50))
    assert outputs["normals"].shape == (2, 3, 33, 50)


@pytest.mark.parametrize("sharing", ["branched", "independent", TREE])
def test_copies_of_shared_blocks_give_the_outputs_of_the_shared(sharing):
    shared, other = multi_task(TASKS, seed=1).eval(), multi_task(TASKS, sharing=sharing, seed=2).eval()
    images = torch.rand(2, 3, 32, 32)
    copied(shared, other)
    for name, output in shared(images).items():
        torch.testing.assert_close(other(images)[name], output)


def test_what_tasks_share_gets_gradients_of_both_and_nothing_else_does():
    for sharing in ("shared", "branched", "independent", TREE):
        model = multi_task(TASKS, sharing=sharing)
        for task in NAMES:
            model.zero_grad()
            model(torch.rand(1, 3, 32, 32))[task].square().mean().backward()
            for groups, blocks in zip(model.sharing, model.blocks, strict=True):
                for group, block in zip(groups, blocks, strict=True):
                    touched = [parameter.grad is not None for parameter in block.parameters()]
                    assert set(touched) == {task in group}


def test_sharing_less_takes_more_weights():
    shared, tree, independent = (
        size_of(multi_task(TASKS, sharing=sharing)) for sharing in ("shared", TREE, "independent")
    )
    assert shared < tree < independent
    heads = sum(size_of(head) for head in multi_task(TASKS).heads.values())
    assert independent - heads == len(TASKS) * (shared - heads)


def test_weights_depend_on_the_seed_alone_and_torch_s_generator_is_left_alone():
    before = torch.random.get_rng_state()
    one, again, other = (multi_task(TASKS, seed=seed).state_dict() for seed in (4, 4, 5))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["blocks.0.0.0.0.weight"], other["blocks.0.0.0.0.weight"])


def test_a_sample_in_eval_mode_is_treated_alone():
    model = multi_task(TASKS, sharing="branched").eval()
    images = torch.rand(4, 3, 32, 32)
    alone = model(images[2:3])
    for name, output in model(images).items():
        torch.testing.assert_close(output[2:3], alone[name], atol=1e-5, rtol=1e-4)


def test_a_user_s_encoder_and_channels():
    encoder = Encoder(
        block=lambda index: nn.Conv2d(2 if index else 3, 2, 3, padding=1),
        head=lambda channels: Pixelwise(channels),
    )
    task = Task("height", loss=lambda output, target: (output - target).flatten(1).abs().mean(1))
    model = multi_task([task], encoder=encoder, channels={"height": 7})
    assert model(torch.rand(2, 3, 8, 8))["height"].shape == (2, 7, 8, 8)


class Pixelwise(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.output = nn.Conv2d(2, channels, 1)

    def forward(self, features, size):
        assert len(features) == 5
        return resized(self.output(features[-1]), size)


def test_the_encoders_are_torchvision_s_up_to_dilation():
    models = pytest.importorskip("torchvision.models")
    x = torch.rand(1, 3, 64, 64)
    resnet = models.resnet34().eval()
    stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
    mobilenet = models.mobilenet_v2().eval().features
    references = {
        "resnet34": [stem, resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4],
        "mobilenet_v2": [mobilenet[a:b] for a, b in ((0, 4), (4, 7), (7, 11), (11, 14), (14, 18))],
    }
    undilated = {"resnet34": 3, "mobilenet_v2": 4}
    for encoder, blocks in references.items():
        ours = [groups[0] for groups in multi_task(TASKS[:1], encoder=encoder).eval().blocks]
        assert [size_of(block) for block in ours] == [size_of(block) for block in blocks]
        theirs = mine = x
        for block, reference in list(zip(ours, blocks, strict=True))[: undilated[encoder]]:
            weights = dict(zip(block.state_dict(), in_our_order(reference), strict=True))
            block.load_state_dict(weights)
            theirs, mine = reference(theirs), block(mine)
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def in_our_order(block):
    return block.state_dict().values()


@pytest.mark.parametrize(
    ("sharing", "error", "says"),
    [
        ("tree", UnknownNameError, "branched"),
        (TREE[:4], SettingError, "4 blocks"),
        ((*TREE[:4], (NAMES[:4],)), SettingError, "each task once"),
        ((*TREE[:4], (*TREE[4], ())), SettingError, "no empty group"),
        ((*TREE[:4], ((*NAMES[:4], "pose"),)), UnknownNameError, "pose"),
        ((*TREE[:4], (NAMES,)), SettingError, "parted before"),
    ],
)
def test_what_is_no_tree_of_the_tasks_is_refused(sharing, error, says):
    with pytest.raises(error, match=says):
        resolve_sharing(sharing, NAMES)


def test_unknown_encoders_and_tasks_without_channels_are_refused():
    with pytest.raises(UnknownNameError, match="resnet34"):
        multi_task(TASKS, encoder="resnet")
    with pytest.raises(UnknownNameError, match="number of channels"):
        multi_task(TASKS, channels={"segmentation": 6})
    with pytest.raises(SettingError, match="one task"):
        multi_task([])


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 1, 16, 16)])
def test_what_is_no_batch_of_colour_images_is_refused(shape):
    with pytest.raises(SettingError, match="colour"):
        multi_task(TASKS[:1])(torch.rand(shape))

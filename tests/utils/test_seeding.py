import torch

from dietnerf_ns.utils.seeding import seed_everything, semantic_generator


def test_random_numbers_depend_on_seed_and_step_alone():
    seed_everything(1, 5)
    first = torch.rand(3)
    torch.rand(7)
    seed_everything(1, 5)
    assert torch.equal(torch.rand(3), first)
    seed_everything(2, 5)
    assert not torch.equal(torch.rand(3), first)


def test_the_semantic_view_has_random_numbers_of_its_own():
    seed_everything(1, 5)
    photometric = torch.rand(3)
    semantic = torch.rand(3, generator=semantic_generator(1, 5))
    assert not torch.isclose(semantic, photometric).any()
    assert torch.equal(torch.rand(3, generator=semantic_generator(1, 5)), semantic)
    assert not torch.equal(torch.rand(3, generator=semantic_generator(1, 6)), semantic)

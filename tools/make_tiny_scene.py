"""Draws the tiny example scene, a lighthouse on a rocky island, in NeRF-Synthetic ("blender-data") format.

Geometry, textures and light are all defined here, so the pictures carry the project's own licence. The scene is a
signed distance field in world coordinates (z up, inside the box [-1.1, 1.1]^3) with diffuse, view-independent colours.
Nothing is random: running the script again writes the same bytes.

    python tools/make_tiny_scene.py [--output DIR]
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from numpy import ndarray
from PIL import Image
from tqdm import tqdm

DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "dietnerf_ns" / "assets" / "tiny_scene"
MAX_BYTES = 1_000_000

SIZE = 100  # image width and height in pixels
SUBSAMPLES = 4  # samples per pixel along each image axis
CAMERA_ANGLE_X = 0.6911112  # horizontal field of view in radians, as in NeRF-Synthetic
CAMERA_DISTANCE = 4.03
NEAR, FAR = CAMERA_DISTANCE - 1.5, CAMERA_DISTANCE + 1.5  # along a ray, around the whole scene
VIEWS = {  # azimuth and elevation of the cameras in degrees, from the front at an azimuth of -68
    "train": [(45 * k - 68, 5 + 60 / 7 * ((3 * k + 3) % 8)) for k in range(8)],
    "val": [(90 * k - 45.5, (12, 48, 24, 36)[k]) for k in range(4)],
    "test": [(14.4 * k - 68, 32.5 - 17.5 * np.cos(np.radians(14.4 * k))) for k in range(25)],
}

HIT_DISTANCE = 1e-3
SAFE_STEP = 0.8  # the uneven rock is not an exact distance field: full steps could overshoot it
SUN_DIRECTION = np.array([[0.48], [-0.60], [0.64]])  # unit length, towards the sun
SUN_LIGHT, SKY_LIGHT, GROUND_LIGHT = np.array([[0.85, 0.79, 0.68], [0.42, 0.46, 0.52], [0.25, 0.22, 0.18]])[..., None]

SEA_LEVEL, GRASS_LEVEL = -0.76, -0.5
TOWER = (-0.02, 0.18)  # x, y
BOULDERS = ((-0.66, 0.4, 0.13), (-0.56, 0.55, 0.1), (0.72, -0.38, 0.12), (0.59, -0.57, 0.1))  # x, y, radius
PINES = ((-0.36, 0.4, 0.62), (-0.4, 0.08, 0.46), (0.4, 0.46, 0.54))  # x, y, height

# What a part of the scene yields for (3, N) world points: first their signed distance to it, then its linear RGB (3, N)
# there. The colours come second, on request, because most of the points along a ray are never seen.
Part = Iterator[ndarray]


def linear(hex_colours: str) -> list[ndarray]:
    """Linear RGB (3, 1) of display colours such as "cf3428", given with spaces between them."""
    return [(np.array([list(bytes.fromhex(colour))]).T / 255) ** 2.2 for colour in hex_colours.split()]


RED, WHITE, CREAM, IRON, GLASS, GOLD, LAMP = linear("cf3428 f4efe2 f3dfb4 3d4650 34506e e8b23a ffe27a")
ROCK, ROCK_DARK, GRASS, GRASS_DARK, SAND, PINE, PINE_LIGHT = linear("a89881 71655a 8ab44c 5f903c e3cd98 2f7549 59a05c")
SEA, SEA_DARK, FOAM, WOOD, WOOD_DARK, BLUE = linear("3a9fc0 1f78a6 e4f4f4 b98048 835328 2a62ad")
TILE, TILE_DARK, BRICK = linear("db7a3c b4562a a34a38")


def paint(colours: ndarray, colour: ndarray, mask: ndarray) -> ndarray:
    """Lays a colour over others, all (3, N) or (3, 1), with the (N,) opacity in [0, 1] or bool `mask`."""
    return colours + (colour - colours) * mask


def noise(points: ndarray, frequency: float) -> ndarray:
    """Smooth, irregular pattern (N,) in [0, 1] at (3, N) points; `frequency` is in radians per unit length."""
    u, v, w = frequency * np.array([[0.80, 0.52, -0.30], [-0.48, 0.85, 0.22], [0.36, -0.10, 0.93]]) @ points
    return 0.5 + 0.25 * np.sin(u + 1.3 * np.sin(v)) + 0.25 * np.sin(v + 1.7 * np.sin(w + 0.6 * u))


def to_local(points: ndarray, x: float, y: float, z: float, yaw: float) -> ndarray:
    """(3, N) world points in the frame of an object that stands at (x, y, z), turned by `yaw` radians about +z."""
    rotation = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return rotation @ (points - np.array([[x], [y], [z]]))


def polar(points: ndarray, x: float, y: float) -> tuple[ndarray, ndarray]:
    """Distance from the vertical axis through (x, y), and azimuth about it in radians."""
    return np.hypot(points[0] - x, points[1] - y), np.arctan2(points[1] - y, points[0] - x)


def frustum(radius: ndarray, z: ndarray, heights: tuple[float, float], radii: tuple[float, float]) -> ndarray:
    """Distance to an upright cone frustum of (bottom, top) heights and radii, from the radius and height of points."""
    slope = (radii[1] - radii[0]) / (heights[1] - heights[0])
    side = (radius - radii[0] - slope * (z - heights[0])) / (1 + slope**2) ** 0.5
    return np.maximum(side, np.maximum(heights[0] - z, z - heights[1]))


def box(points: ndarray, x: float, y: float, z: float, half_size: tuple[float, float, float]) -> ndarray:
    """Distance from (3, N) points to an axis-aligned box around (x, y, z)."""
    return (np.abs(points - np.array([[x], [y], [z]])) - np.array([half_size]).T).max(axis=0)


def sea(points: ndarray) -> Part:
    """Disc of water on a wooden board, with foam around whatever stands in it."""
    (radius, angle), z = polar(points, 0, 0), points[2]
    board = frustum(radius, z, (-0.91, SEA_LEVEL - 0.03), (0.98, 0.98))
    water = frustum(radius, z, (-0.9, SEA_LEVEL), (0.93, 0.93))
    yield np.minimum(board, water)
    shore = np.minimum(next(island(points)), next(boat(points)))
    waves = paint(SEA, SEA_DARK, noise(points * np.array([[1], [1.8], [1]]), 9))
    waves = paint(waves, FOAM, shore < 0.025 + 0.04 * noise(points, 14))
    staves = 0.5 + 0.3 * np.sin(2.4 * np.floor(angle * 14 / np.pi)) + 0.2 * np.sin(z * 90 + 3 * np.sin(angle * 5))
    yield np.where(water < board, waves, paint(WOOD, WOOD_DARK, staves))


def island(points: ndarray) -> Part:
    """Layered rock with an uneven coast, grass and a sandy path on top, and boulders off it."""
    (radius, angle), (x, y, z) = polar(points, 0.07, 0.07), points
    coast = 0.06 * np.sin(2 * angle + 2.37) + 0.03 * np.sin(5 * angle + 3.1)
    rock = frustum(radius - coast, z, (-0.9, GRASS_LEVEL), (0.77, 0.62))
    for east, north, size in BOULDERS:
        rock = np.minimum(rock, np.sqrt((x - east) ** 2 + (y - north) ** 2 + (z - SEA_LEVEL) ** 2) - size)
    roughness = 0.044 * np.clip((GRASS_LEVEL + 0.04 - z) / 0.08, 0.1, 1)
    yield rock + roughness * (noise(points, 13) - 0.5)
    path = (np.abs(x - 0.06 * np.sin(5 * y)) < 0.07) & (y < TOWER[1])
    path |= (np.abs(y + 0.3 - 0.04 * np.sin(8 * x)) < 0.05) & (x > 0) & (x < 0.42)
    layers = paint(ROCK, ROCK_DARK, 0.5 + 0.5 * np.sin(z * 45 + 5 * noise(points, 5)))
    meadow = paint(paint(GRASS, GRASS_DARK, noise(points, 16)), SAND, path)
    yield paint(layers, meadow, z + 0.04 * noise(points, 20) > GRASS_LEVEL - 0.03)


def tower(points: ndarray) -> Part:
    """Tapering shaft with a red and white spiral, windows up the stairs and a door to the south."""
    (radius, angle), z = polar(points, *TOWER), points[2]
    yield frustum(radius, z, (-0.6, 0.47), (0.29, 0.185))
    colours = paint(WHITE, RED, np.sin(14.3 * z - angle) > 0)
    for azimuth, height in ((-1.0, -0.02), (0.5, 0.12), (2.1, 0.26), (-2.6, 0.06), (-1.75, 0.32)):
        across, up = radius * np.abs(angle - azimuth), np.abs(z - height)
        colours = paint(colours, WHITE, (across < 0.055) & (up < 0.075))
        colours = paint(colours, GLASS, (across < 0.034) & (up < 0.052))
    across, up = radius * np.abs(angle + np.pi / 2), z - GRASS_LEVEL
    colours = paint(colours, WHITE, (across < 0.11) & (up < 0.24))
    yield paint(colours, BLUE, (across < 0.075) & (up < 0.20))


def lantern(points: ndarray) -> Part:
    """Top of the tower: gallery with a parapet, glass room around the lamp, red dome and gilded ball."""
    (radius, angle), z = polar(points, *TOWER), points[2]
    bowl = frustum(radius, z, (0.42, 0.56), (0.22, 0.29))
    gallery = np.maximum(bowl, -frustum(radius, z, (0.49, 0.7), (0.25, 0.25)))
    room = frustum(radius, z, (0.45, 0.77), (0.155, 0.155))
    dome = np.maximum(np.hypot(radius, z - 0.76) - 0.215, 0.76 - z)
    top = np.hypot(radius, z - 1.01) - 0.05
    yield np.minimum.reduce([gallery, room, dome, top])
    bars = (np.mod(angle, np.pi / 4) < 0.17) | (z > 0.73)
    panels = (gallery < room) & (np.sin(16 * angle) > 0) & (z > 0.465) & (z < 0.535)
    colours = paint(paint(2 * LAMP, IRON, bars | (gallery < room)), WHITE, panels)
    yield paint(paint(colours, RED, dome < room), GOLD, top < dome)


def cottage(points: ndarray) -> Part:
    """Plastered house with a tiled gable roof along its x axis, a blue door towards its -y and a brick chimney."""
    x, y, z = local = to_local(points, 0.38, -0.06, GRASS_LEVEL, 0.2)
    gable = (np.abs(y) + z - 0.4) * 0.5**0.5
    walls = np.maximum(box(local, 0, 0, 0.1, (0.23, 0.155, 0.3)), gable + 0.02)
    roof = np.maximum(np.maximum(gable, -gable - 0.045), box(local, 0, 0, 0.3, (0.265, 0.21, 0.12)))
    chimney = box(local, 0.12, 0.06, 0.3, (0.045, 0.045, 0.16))
    yield np.minimum.reduce([walls, roof, chimney])
    front, side = np.abs(y) > 0.15, np.abs(x) > 0.225
    window = front & (np.abs(np.abs(x) - 0.14) < 0.045) & (np.abs(z - 0.13) < 0.045)
    window |= side & (np.abs(y) < 0.05) & (np.abs(z - 0.14) < 0.05)
    colours = paint(paint(CREAM, GLASS, window), BLUE, front & (y < 0) & (np.abs(x) < 0.05) & (z < 0.18))
    row = np.floor(np.abs(y) / 0.05)
    tiles = paint(TILE, TILE_DARK, 0.6 * (np.sin(40 * x + 0.5 * np.pi * row) > 0) + 0.4 * (row % 2))
    yield paint(paint(colours, tiles, roof < walls), BRICK, chimney < np.minimum(walls, roof))


def boat(points: ndarray) -> Part:
    """Blue sailing boat, bow towards its x axis, with a banded main sail and a golden jib."""
    x, y, z = to_local(points, -0.52, -0.54, SEA_LEVEL, -0.6)
    hull = np.maximum(np.hypot(x, np.abs(y) + 0.2) - 0.31 - 0.25 * z, np.abs(z - 0.03) - 0.08)
    mast = frustum(np.hypot(x - 0.02, y), z, (0, 0.66), (0.02, 0.014))
    main = np.maximum((z - 0.6 - 2.0 * x) / 5**0.5, x)
    jib = np.maximum((z - 0.6 + 2.0 * x) / 5**0.5, 0.05 - x)
    sails = np.maximum(np.minimum(main, jib), np.maximum(0.17 - z, np.abs(y) - 0.018))
    yield np.minimum.reduce([hull, mast, sails])
    painted_hull = paint(paint(BLUE, WHITE, z > 0.065), WOOD, z > 0.105)
    cloth = paint(paint(WHITE, RED, np.abs(z - 0.32) < 0.045), GOLD, jib < main)
    yield paint(paint(painted_hull, cloth, sails < hull), WOOD_DARK, mast < np.minimum(hull, sails))


def pines(points: ndarray) -> Part:
    """Trees of three tiers each."""
    z, tiers = points[2] - GRASS_LEVEL, []
    for x, y, height in PINES:
        radius = np.hypot(points[0] - x, points[1] - y)
        for bottom, top, width in ((0.04, 0.55, 0.28), (0.33, 0.78, 0.22), (0.6, 1.0, 0.16)):
            tiers.append(frustum(radius, z, (bottom * height, top * height), (width * height, 0.01)))
    yield np.minimum.reduce(tiers)
    yield paint(PINE, PINE_LIGHT, noise(points, 26))


PARTS = (sea, island, tower, lantern, cottage, boat, pines)


def scene_distance(points: ndarray) -> ndarray:
    """Signed distance (N,) from (3, N) points to the scene."""
    return np.minimum.reduce([next(part(points)) for part in PARTS])


def surface_normals(points: ndarray) -> ndarray:
    """Unit gradient (3, N) of the scene distance, from differences along the corners of a tetrahedron."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])[..., None]
    gradient = sum(corner * scene_distance(points + 2e-3 * corner) for corner in corners)
    return gradient / np.linalg.norm(gradient, axis=0)


def sun_visibility(points: ndarray) -> ndarray:
    """Share (N,) of the sun in [0, 1] that reaches the points: soft where its rays narrowly miss a part."""
    travelled, visible = np.full(points.shape[1], 0.03), np.ones(points.shape[1])
    for _ in range(24):
        clearance = scene_distance(points + travelled * SUN_DIRECTION)
        visible = np.minimum(visible, 14 * clearance / travelled)
        travelled += np.clip(clearance, 0.02, 0.2)
    return np.clip(visible, 0, 1)


def sky_visibility(points: ndarray, normals: ndarray) -> ndarray:
    """Ambient occlusion (N,), 1 in the open: how much room there is along the normals."""
    openness = [scene_distance(points + reach * normals) / reach for reach in (0.04, 0.1, 0.22)]
    return np.clip(0.1 + 0.9 * np.mean(openness, axis=0), 0.15, 1)


def shade(points: ndarray) -> ndarray:
    """Display RGB (3, N) in [0, 1] of surface points in the light of sun, sky and ground; the same from every side."""
    distances, colours = zip(*(part(points) for part in PARTS), strict=True)
    albedo = np.choose(np.argmin(distances, axis=0), colours)
    normals = surface_normals(points)
    points = points + 3 * HIT_DISTANCE * normals
    sun = np.maximum((normals * SUN_DIRECTION).sum(axis=0), 0) * sun_visibility(points)
    upward = 0.5 + 0.5 * normals[2]
    ambient = sky_visibility(points, normals) * (upward * SKY_LIGHT + (1 - upward) * GROUND_LIGHT)
    return np.clip(albedo * (sun * SUN_LIGHT + ambient), 0, 1) ** (1 / 2.2)


def trace(origin: ndarray, directions: ndarray) -> ndarray:
    """Distance (N,) along unit `directions` (3, N) from `origin` (3, 1) to the scene, FAR or more for a miss."""
    travelled, active = np.full(directions.shape[1], NEAR), np.arange(directions.shape[1])
    while active.size:
        clearance = scene_distance(origin + travelled[active] * directions[:, active])
        travelled[active] += SAFE_STEP * clearance
        active = active[(clearance > HIT_DISTANCE) & (travelled[active] < FAR)]
    return travelled


def render(camera_to_world: ndarray) -> Image.Image:
    """RGBA picture with straight alpha, seen by a camera with OpenGL axes (looks along -z, +y up)."""
    focal = 0.5 * SIZE / np.tan(0.5 * CAMERA_ANGLE_X)
    ticks = (np.arange(SIZE * SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5 * SIZE
    x, y = (axis.ravel() for axis in np.meshgrid(ticks, -ticks))
    directions = camera_to_world[:3, :3] @ np.stack([x, y, np.full_like(x, -focal)])
    directions /= np.linalg.norm(directions, axis=0)
    origin = camera_to_world[:3, 3:]
    distances = trace(origin, directions)
    hit = distances < FAR
    rgba = np.zeros((4, hit.size))
    rgba[:, hit] = [*shade(origin + distances[hit] * directions[:, hit]), np.ones(hit.sum())]
    # Averaged as display colours, in which such pictures are later laid over a background.
    rgba = rgba.reshape(4, SIZE, SUBSAMPLES, SIZE, SUBSAMPLES).mean(axis=(2, 4))
    rgba[:3] /= np.maximum(rgba[3], 1e-9)
    return Image.fromarray(np.round(255 * rgba).astype(np.uint8).transpose(1, 2, 0))


def look_at_centre(azimuth_degrees: float, elevation_degrees: float) -> ndarray:
    """4x4 camera-to-world, OpenGL axes, of a camera that looks at the world's origin; azimuth 0 is +x, 90 is +y."""
    azimuth, elevation = np.radians(azimuth_degrees), np.radians(elevation_degrees)
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0])
    back = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    camera_to_world = np.eye(4)
    camera_to_world[:3] = np.stack([right, np.cross(back, right), back, CAMERA_DISTANCE * back], axis=1)
    return camera_to_world


def write_split(output: Path, split: str) -> None:
    """Draws the views of one split and lists their camera-to-world matrices."""
    (output / split).mkdir(parents=True, exist_ok=True)
    frames = []
    for index, view in enumerate(tqdm(VIEWS[split], desc=split, unit="view")):
        pose = look_at_centre(*view)
        render(pose).save(output / split / f"r_{index}.png", optimize=True)
        frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": pose.tolist()})
    transforms = json.dumps({"camera_angle_x": CAMERA_ANGLE_X, "frames": frames}, indent=2)
    (output / f"transforms_{split}.json").write_text(transforms + "\n")


def main(output: Path = DEFAULT_OUTPUT) -> None:
    """Draws all views into the folder `output`."""
    for split in VIEWS:
        write_split(output, split)
    total = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {total} bytes")
    if total > MAX_BYTES:
        raise RuntimeError(f"The scene takes {total} bytes, more than the {MAX_BYTES} allowed.")


if __name__ == "__main__":
    tyro.cli(main)

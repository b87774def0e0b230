"""Small episode files of every layout, whose pictures say which step they are of."""

import io
import json

import h5py
import numpy as np
from PIL import Image

SIZE = 16


def picture(step, *, turn="none", bgr=False):
    """Red grows with the step at the top, green at the left; stored so that `turn` undoes it."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[: SIZE // 2, :, 0] = 40 + step
    image[:, : SIZE // 2, 1] = 200
    stored = image[::-1] if turn in ("flip", "rotate") else image
    stored = stored[:, ::-1] if turn in ("mirror", "rotate") else stored
    return image, np.ascontiguousarray(stored[..., ::-1] if bgr else stored)


def pictures(steps, **how):
    return np.stack([picture(step, **how)[1] for step in range(steps)])


def jpeg(step, quality=95):
    buffer = io.BytesIO()
    Image.fromarray(picture(step)[0]).save(buffer, "jpeg", quality=quality, subsampling=0)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def actions(steps, dims, base=0.0):
    return (base + np.arange(steps)[:, None] + np.arange(dims) / 100).astype(np.float64)


def write_libero(path, lengths=(5, 3), words="put the red cube in the bowl"):
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": words})
        # Written in an order that is not that of their numbers.
        for number in reversed(range(len(lengths))):
            steps = lengths[number]
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = actions(steps, 7, 10 * number)
            demo["dones"] = np.eye(1, steps, steps - 1, dtype=np.uint8)[0]
            obs = demo.create_group("obs")
            obs["agentview_rgb"] = pictures(steps, turn="rotate")
            obs["eye_in_hand_rgb"] = pictures(steps, turn="rotate")
            obs["ee_pos"], obs["ee_ori"] = actions(steps, 3, 1), actions(steps, 3, 2)
            obs["gripper_states"] = actions(steps, 2, 3)
    return path


def write_robomimic(path, steps=4):
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"], demo["rewards"] = actions(steps, 7), np.zeros(steps)
        obs = demo.create_group("obs")
        obs["agentview_image"] = pictures(steps)
        obs["robot0_eef_pos"] = actions(steps, 3)
        half = np.sqrt(0.5)
        obs["robot0_eef_quat"] = np.tile([half, 0, 0, half], (steps, 1))
        obs["robot0_gripper_qpos"] = actions(steps, 2)
    return path


def write_aloha(path, steps=4, *, compressed=False):
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file["action"], file["observations/qpos"] = actions(steps, 14), actions(steps, 14, 5)
        for name in ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"):
            if compressed:
                frames = [jpeg(step) for step in range(steps)]
                longest = max(map(len, frames))
                stored = np.stack([np.pad(f, (0, longest - len(f))) for f in frames])
            else:
                stored = pictures(steps)
            file[f"observations/images/{name}"] = stored
    return path


def write_droid(path, steps=4):
    with h5py.File(path, "w") as file:
        file["action/joint_velocity"] = actions(steps, 7)
        file["action/gripper_position"] = np.linspace(0, 1, steps)
        state = "observation/robot_state"
        file[f"{state}/joint_positions"] = actions(steps, 7, 4)
        file[f"{state}/gripper_position"] = np.linspace(1, 0, steps)
        for name in ("hand_camera_left_image", "varied_camera_1_left_image"):
            file[f"observation/camera/image/{name}"] = pictures(steps)
    beside = {"current_task": "close the drawer", "success": True}
    (path.parent / "metadata_x.json").write_text(json.dumps(beside))
    return path


def write_mobile_vla(path, steps=6, *, version=1, vlen=False):
    with h5py.File(path, "w") as file:
        file["actions"] = actions(steps, 3)
        file.attrs["episode_name"] = path.stem
        file.attrs["num_frames"] = steps
        place = "images" if version == 1 else "observations/images"
        if vlen:
            stored = file.create_dataset(place, (steps,), h5py.vlen_dtype(np.uint8))
            for step in range(steps):
                stored[step] = jpeg(step)
        else:
            file[place] = pictures(steps, bgr=version == 1)
        if version == 5:
            words = np.array([b"go around the box"], "S256")
            file["language_instruction"] = words
    return path


def write_calvin(folder, spans=((7, 9), (10, 13)), annotated=False):
    folder.mkdir()
    np.save(folder / "ep_start_end_ids.npy", np.array(spans))
    for first, last in spans:
        for number in range(first, last + 1):
            np.savez(
                folder / f"episode_{number:07d}.npz",
                rgb_static=picture(number)[0], rgb_gripper=picture(number)[0],
                rel_actions=actions(1, 7, number)[0], robot_obs=actions(1, 15, number)[0],
            )  # fmt: skip
    if annotated:
        (folder / "lang_annotations").mkdir()
        entry = [{"start": 8, "end": 9, "instruction": "open the drawer"}]
        (folder / "lang_annotations" / "auto_lang_ann.json").write_text(json.dumps(entry))
    return folder


WRITERS = {
    "libero": write_libero,
    "robomimic": write_robomimic,
    "aloha": write_aloha,
    "droid": write_droid,
    "mobile_vla": write_mobile_vla,
}

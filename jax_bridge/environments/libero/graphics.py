"""Which graphics library renders without a screen."""

import ctypes
import os
import sys

_EGL_PLATFORM_DEVICE = 0x313F


def choose_backend() -> None:
    """Sets `$MUJOCO_GL` where the user has not: EGL, or OSMesa if EGL does not work here.

    To be called before mujoco and robosuite are imported, which read it once.

    Raises:
        FileNotFoundError: if neither library works.
    """
    if os.environ.get("MUJOCO_GL") or not sys.platform.startswith("linux"):
        return
    if _egl_works():
        os.environ["MUJOCO_GL"] = "egl"
    elif _loads("libOSMesa.so.8") or _loads("libOSMesa.so.6"):
        os.environ["MUJOCO_GL"] = "osmesa"
        os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")
    else:
        raise FileNotFoundError(
            "Rendering must find EGL or OSMesa, but neither library works here. Install one: "
            "`apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libosmesa6`."
        )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _egl_works() -> bool:
    """Whether the first EGL device, the one that robosuite takes, can be initialised."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    open_display = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query or not open_display:
        return False
    devices, count = (ctypes.c_void_p * 1)(), ctypes.c_int()
    signature = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    signature(query)(1, ctypes.addressof(devices), ctypes.addressof(count))
    if count.value < 1:
        return False
    signature = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)
    display = signature(open_display)(_EGL_PLATFORM_DEVICE, devices[0], None)
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    return bool(display) and bool(egl.eglInitialize(display, None, None))

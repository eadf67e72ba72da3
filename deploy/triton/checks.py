"""What is looked at before a server starts, because Triton's own message would not name the remedy."""

import os
import resource
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from contracts import bundle, layout, manifest, model_config, repository, signing
from contracts.errors import ManifestError, ProjectError, SignatureError
from contracts.names import RULE, is_model_name
from contracts.trust.identity import verify_for_serving
from deploy.errors import RepositoryError, SettingsError
from deploy.neighbours import held_ports, identity
from deploy.neighbours.identity import Identity
from deploy.triton import released
from deploy.triton.environment import Triton, layers_home, models_python
from deploy.triton.settings import Settings

_OPEN_FILES = 256
_ELSEWHERE = "another folder: --http-socket, or TMPDIR=/tmp where a gateway chooses it"
_SOCKET_PATH = 107  # sun_path in unix(7), without its last zero


def before_start(settings: Settings, *, held: bool = False) -> dict[str, str]:
    """Check everything that can be known without a Triton.

    Args:
        held: The ports of HTTP and gRPC are this process's already.

    Returns:
        {model: why its releases may not be served}.

    Raises:
        RepositoryError: the model repository is missing, or nothing in it is released.
        SettingsError: an address cannot be listened on, or too few files may be open.
        ManifestError: a version is not what was published; only if the settings are strict, or nothing is left.
        SignatureError: `settings.trust` is given and a release is unsigned or not what was signed; as above.
    """
    _published(settings.repository)
    refused = _refused(settings)
    options = ["grpc_port", "metrics_port"] if settings.http_socket else ["http_port", "grpc_port", "metrics_port"]
    ports = [getattr(settings, option) for option in options]
    if len(set(ports)) < len(ports):
        raise SettingsError(f"HTTP, gRPC and metrics need a port each, not {', '.join(map(str, ports))}")
    for option in ("metrics_port",) if held else options:
        held_ports.check_free(settings.host, getattr(settings, option), option)
    if settings.http_socket:
        _check_socket(settings.http_socket)
    check_open_files()
    if settings.tls:
        for file in (settings.tls.certificate, settings.tls.key, settings.tls.client_ca):
            if file and not file.is_file():
                raise SettingsError(f"there is no {file}")
    return refused


def _check_socket(path: Path) -> None:
    """See that a socket can be made, in place of one that an earlier server has left.

    Raises:
        SettingsError: it cannot.
    """
    if len(os.fsencode(path)) > _SOCKET_PATH:
        raise SettingsError(
            f"--http-socket {path} is too long",
            note=f"a socket's path has at most {_SOCKET_PATH} bytes",
            hint=_ELSEWHERE,
        )
    if not path.parent.is_dir():
        raise SettingsError(f"there is no folder {path.parent} for the socket", hint=f"mkdir -m 700 {path.parent}")
    if path.exists() and not path.is_socket():
        raise SettingsError(f"{path} is there, and no socket")


def user_to_become(settings: Settings, triton: Triton, home: Path, say: Callable[[str], None]) -> Identity | None:
    """Choose whom the server runs as: root's as somebody without privileges, any other as its caller (None).

    Root's runs as root where that was asked for, and never because nothing else would do.

    Args:
        home: The folder in which it is given what it serves, there already or to be made.

    Raises:
        SettingsError: there is no such user, or it cannot read what the server needs.
    """
    if os.geteuid() != 0:
        if settings.user and identity.chosen(settings.user).uid != os.geteuid():
            raise SettingsError(f"only root can start a server as {settings.user}")
        return None
    user = identity.chosen(settings.user)
    if user.uid == 0:
        say("warning: the server runs as root, as it was told to: its models may do anything on this machine")
        return None
    if (unreadable := _unreadable(user, settings, triton, home)) is not None:
        raise SettingsError(
            f"{user.name} cannot read {unreadable}, and the server of root does not run as root unasked",
            note="--user NAME or --user UID chooses another user",
            hint="give it read access, as with chmod -R a+rX, or accept a server that may do anything: --user root",
        )
    if (place := settings.http_socket) and _first_without("-x", [place.parent.parent], user):
        raise SettingsError(
            f"{user.name} cannot come to the socket {place}: a folder on the way is closed to it",
            hint=_ELSEWHERE,
        )
    return user


def check_open_files() -> None:
    """Check that a server may open enough files: Triton ends at 32, has 53 open with one model, and one a connection.

    Raises:
        SettingsError: it may not.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < _OPEN_FILES:
        raise SettingsError(
            f"this process may open {allowed} files at once (ulimit -n), and a server needs {_OPEN_FILES} or more",
            note="each connection takes one, and so do models and their workers",
            hint=f"ulimit -n {min(most, 1024) if most >= _OPEN_FILES else 1024}; in a container: --ulimit nofile=1024; "
            "for a service of systemd: LimitNOFILE=1024",
        )


def _published(root: Path) -> None:
    """Check that there is something to serve, under names that Triton can take."""
    configs = sorted(root.glob("*/config.pbtxt"))
    if not configs:
        raise _no_models(root)
    if strange := [config.parent.name for config in configs if not is_model_name(config.parent.name)]:
        raise RepositoryError(
            f"a model cannot be called {strange[0]!r}, as a folder in {layout.shown(root)} is",
            note=f"a name has {RULE}; tritonserver 2.51 ends at others",
            hint="rename the folder, or move it out of the repository",
        )
    groups = released.left_out(root)
    if len(released.names(groups)) == len(configs):
        empty = [config.parent.name for config in configs if not repository.versions(config.parent)]
        commands = dict.fromkeys(group.command or "python -m export" for group in groups)
        raise RepositoryError(
            f"no version of {', '.join(empty)} is published in {layout.shown(root)}",
            hint=f"publish one: {', or '.join(commands)}",
        )


def _no_models(root: Path) -> RepositoryError:
    """Say what is in place of a model repository. In a container it is most often not mounted, or another user's."""
    if not root.is_dir():
        hint = "name it with --repository, or MODEL_REPOSITORY; into a container it is mounted: --volume …"
        return RepositoryError(f"there is no model repository at {root}", hint=f"{hint}:{root}")
    if not os.access(root, os.R_OK | os.X_OK):
        hint = f"chmod -R a+rX {root}, or run as its owner: in a container with --user"
        return RepositoryError(f"the model repository {root} cannot be read by uid {os.geteuid()}", hint=hint)
    return RepositoryError(f"there is no model in {root}: no folder in it has a {model_config.FILE_NAME}")


def _refused(settings: Settings) -> dict[str, str]:
    """Return {model: why its releases may not be served}; raise that if the settings are strict, or nothing is left."""
    wrong: dict[str, ProjectError] = {}
    folders = [config.parent for config in sorted(settings.repository.glob("*/config.pbtxt"))]
    sealed = _steps_of_releases(folders)
    for folder in folders:
        try:
            _as_published(folder, None if folder.name in sealed else settings.trust)
        except (ManifestError, SignatureError) as error:
            wrong[folder.name] = error
    for folder in settings.repository.iterdir():
        if is_model_name(folder.name) and _lacks_config(folder):
            reason = f"it has no {model_config.FILE_NAME}, which every model needs: Triton is not left to guess one"
            wrong[folder.name] = RepositoryError(reason)
    said = {model: str(error) for model, error in wrong.items()}
    out = released.names(released.left_out(settings.repository, failed=said))
    if wrong and (settings.strict or out >= {folder.name for folder in folders}):
        raise next(iter(wrong.values()))
    return said


def _lacks_config(folder: Path) -> bool:
    """Tell whether a folder is a model but for its configuration; one without a version is no model at all."""
    return folder.is_dir() and not (folder / model_config.FILE_NAME).is_file() and bool(repository.versions(folder))


def _steps_of_releases(folders: Sequence[Path]) -> set[str]:
    """Return the models that are served from the bundle of a release, and have no releases themselves."""
    newest = {folder: repository.versions(folder)[-1:] for folder in folders}
    networks = {f: n[0] for f, n in newest.items() if n and (f / str(n[0]) / manifest.FILE_NAME).is_file()}
    found = set[str]()
    for folder, number in networks.items():
        with suppress(ProjectError):  # what is wrong with it is said of itself
            found |= {*bundle.of(folder.parent, folder.name, number).models}
    return found - {folder.name for folder in networks}


def _as_published(folder: Path, trust: signing.Trust | None) -> None:
    """Verify the version of a model that serves, and its signature if one is asked for.

    Older ones are looked at where they are copied: what is wrong with one keeps no other from serving.
    """
    for version in repository.versions(folder)[-1:]:
        verify_for_serving(folder / str(version), folder.name, version, trust)


def _unreadable(user: Identity, settings: Settings, triton: Triton, home: Path) -> Path | None:
    """Find the first file or folder that the server needs and `user` cannot read."""
    libraries = [Path(path) for path in triton.environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    needed = [triton.executable, *libraries, models_python().standard_library / "os.py", settings.repository]
    needed += [path for path in settings.repository.rglob("*") if not path.name.startswith(".")]
    needed.append(next(path for path in (home, *home.parents) if path.is_dir()))
    needed += [layers] if (layers := layers_home()).is_dir() else []
    if tls := settings.tls:
        needed += [file for file in (tls.certificate, tls.key, tls.client_ca) if file]
    return _first_without("-r", needed, user)


def _first_without(right: str, paths: Sequence[Path], user: Identity) -> Path | None:
    """Find the first path to which `user` has not the right: "-r", "-x" as test(1) has them."""
    first = f'for f; do test {right} "$f" || {{ printf %s "$f"; exit 255; }}; done'  # 255 ends xargs
    done = subprocess.run(
        ["xargs", "-0", "sh", "-c", first, "sh"],  # a thousand versions have more files than a command takes
        input="\0".join(map(str, paths)),
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        done.check_returncode()
    return Path(done.stdout) if done.stdout else None

"""A build finds packages where this machine does, and is told nothing else of it."""

from pathlib import Path

from tests.images import pip_settings


def test_where_packages_come_from_is_passed_on_and_how_they_are_installed_is_not(tmp_path: Path) -> None:
    listed = """
:env:.find-links='/nowhere/wheels'
:env:.disable-pip-version-check='1'
global.find-links='/nowhere/overridden'
global.index-url='https://packages.example/simple'
global.user='true'
install.target='/nowhere/else'
install.no-index='false'
"""
    settings = pip_settings.from_listed(listed, {})
    assert settings.text.splitlines() == [
        "[global]",
        "find-links = /nowhere/wheels",
        "index-url = https://packages.example/simple",
        "no-index = false",
    ]
    assert settings.mounts == ()


def test_files_and_folders_that_are_named_are_mounted_where_they_are(tmp_path: Path) -> None:
    for name in ("index/simple", "wheels"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("constraints.txt", "certificates.pem"):
        (tmp_path / name).touch()
    listed = f"""
global.constraint='{tmp_path}/constraints.txt'
global.extra-index-url='https://packages.example/simple file://{tmp_path}/index/simple'
global.find-links='{tmp_path}/wheels {tmp_path}/missing'
"""
    settings = pip_settings.from_listed(listed, {"SSL_CERT_FILE": str(tmp_path / "certificates.pem")})
    assert f"\ncert = {tmp_path}/certificates.pem\n" in settings.text
    assert f"\nextra-index-url = https://packages.example/simple\n    file://{tmp_path}/index/simple\n" in settings.text
    assert settings.mounts == tuple(
        tmp_path / name for name in ("certificates.pem", "constraints.txt", "index", "wheels")
    )
    conf, *volumes = settings.options(tmp_path)
    assert conf == f"--volume={tmp_path}/pip.conf:/etc/pip.conf:ro"
    assert f"--volume={tmp_path}/index:{tmp_path}/index:ro" in volumes


def test_a_folder_within_one_that_is_mounted_is_not_mounted_again(tmp_path: Path) -> None:
    (tmp_path / "packages" / "simple").mkdir(parents=True)
    (tmp_path / "packages" / "wheels").mkdir()
    listed = f"""
global.find-links='{tmp_path}/packages/wheels'
global.index-url='file://{tmp_path}/packages/simple'
"""
    assert pip_settings.from_listed(listed, {}).mounts == (tmp_path / "packages",)


def test_pip_of_this_machine_is_asked() -> None:
    told = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "7"}
    assert pip_settings.of_this_machine(told).text == "[global]\nretries = 7\n"

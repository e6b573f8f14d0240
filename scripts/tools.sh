# Tools that look at the project from outside keep an environment of their own: what they need is none of our versions.
# Sourced; `tool NAME REQUIREMENT` makes sure that $tools/bin/NAME is there.
tools=build/tools
python="${PYTHON:-.venv/bin/python}"

tool() {
    [ -x "$tools/bin/python" ] || "$python" -m venv "$tools"
    [ -x "$tools/bin/$1" ] || "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
}

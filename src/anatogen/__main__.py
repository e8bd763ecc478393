"""python -m anatogen"""

from anatogen.cli.app import app

app(prog_name="anatogen")

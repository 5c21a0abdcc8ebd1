# Sourced by the benchmarks: peers IMPORTS PACKAGES puts packages of the Python registry into target/peers where an import
# fails; built NAME builds one of our benchmarks and prints where its program is.

peers() {
    if [ ! -x target/peers/bin/python ]; then
        python3 -m venv target/peers
    fi
    if ! KERAS_BACKEND=torch target/peers/bin/python -c "import $1" 2>/dev/null; then
        # Packages are words of their own.
        target/peers/bin/pip install --quiet $2
    fi
}

built() {
    cargo bench --bench "$1" --no-run --message-format json |
        target/peers/bin/python -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "$1"
}

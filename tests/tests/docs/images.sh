# Bundles are fetched from the registries themselves, not from mirrors.
sed -i "s#docker.io#$PUBLIC#" deployment.json
agent

cp -r tests/tutorial/third/. .
printf 'LED_HOST=led\nCONTAINER_REGISTRY_SERVER=registry.example.com\n' > .env
export CONTAINER_REGISTRY_USERNAME_tutorialcontainers=$USER
export CONTAINER_REGISTRY_PASSWORD_tutorialcontainers=$PASSWORD
rm deployment.json
hub
## kobune apply --env-file secrets deployment.json
agent
kobune-hub device create pump-1 --edge
printf 'REGISTRY_USER=%s\nREGISTRY_PASSWORD=%s\n' "$USER" "$PASSWORD" > secrets
cat > deployment.json <<'END'
{"modulesContent": {"$edgeAgent": {"properties.desired": {
  "schemaVersion": "1.1",
  "runtime": {"type": "docker", "settings": {"registryCredentials": {"mine": {
    "address": "registry.example.com",
    "username": "$REGISTRY_USER", "password": "$REGISTRY_PASSWORD"}}}},
  "systemModules": {"edgeAgent": {"type": "docker", "settings": {"image": "a"}}},
  "modules": {"led": {"type": "docker", "status": "running", "settings": {"image": "registry.example.com/led:1.0"}}}
}}}}
END

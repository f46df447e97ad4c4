rm -f /usr/bin/kobune /usr/libexec/kobune/*
mkdir target
ln -s "$BUILT" target/release
## kobune run -p 8080:80 --name web docker.io/library/nginx:latest
wait_for kobune list

# A private registry beside the reader's machine is nothing that this page needs.
## kobune run -p 8080:80 --name web docker.io/library/nginx:latest
wait_for kobune list

# docker build -t alignmend .            on a processor
# docker build -t alignmend --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# docker run --rm -v "$PWD:/data" alignmend audit model --parent original
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=restore
RUN apt-get update && apt-get install --yes --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE constraints.txt /source/
COPY src /source/src
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.4" \
    && pip install --no-cache-dir "/source[$EXTRAS]" && rm -rf /source
RUN useradd --create-home someone
USER someone
WORKDIR /data
ENV OMP_NUM_THREADS=4
ENTRYPOINT ["alignmend"]
CMD ["--help"]

process RESAMPLE {
    tag "$meta.id"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container 'voxmask/voxmask:0.1.0'

    input:
    tuple val(meta), path(image), path(like)

    output:
    tuple val(meta), path("${prefix}.nii.gz"), emit: image
    tuple val(meta), path("${prefix}.json"),   emit: report
    tuple val("${task.process}"), val('voxmask'), eval("voxmask-resample --version | sed 's/^.* //'"), topic: versions, emit: versions_voxmask

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def like_arg = like ? "--like ${like}" : ''
    prefix = task.ext.prefix ?: "${meta.id}_resampled"
    """
    voxmask-resample \\
        --input ${image} ${like_arg} --output ${prefix}.nii.gz \\
        --report ${prefix}.json \\
        --threads ${task.cpus} ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_resampled"
    """
    echo "" | gzip > ${prefix}.nii.gz
    touch ${prefix}.json
    """
}
